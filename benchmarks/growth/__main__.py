from benchmarks.growth.command import main

raise SystemExit(main())
