"""``make bench``: Holdfast and its peers on one machine, in one run. ``python -m benchmarks.compare --help``.

Every system runs three nodes on loopback, every client is the system's best one for Python in a process of
its own (``worker``), all on the same processors and the same disk. Systems take turns, in rounds
(``runner``): fresh directory, start, workloads, stop. A figure is the median of the rounds. A topic has one
partition on three replicas. Payloads are random bytes. What is counted is checked: a wrong count or size is
an error, not a figure.

How the figures are defined (the ``workloads`` package measures them, ``figures`` draws them from what it
says):

sequential
    One publisher awaits each acknowledgement of 100 B, 500 times after 50 that are not counted: median and
    99th percentile of the time of one ``publish``, in ms.
pipelined-100, -1k, -10k
    ``publish_all`` from its call to the last acknowledgement; records/s and MB/s (10⁶ bytes of payload).
    The number of records is what a burst before says to last four seconds, at most 400 MB.
publishers-1, -16, -128
    So many tasks of one client publish 100 B and await each acknowledgement, for three seconds: records/s.
mixed
    ``publish_all`` and a consumer group at the same time, on connections of their own: records/s from the
    first publish to the last record consumed and acknowledged.
latency-half, latency-1000
    Publish to delivery in an open loop, at half of the rate of ``mixed`` and at 1,000 records/s: time from
    when a record is handed to the client (or was due, if the client was behind) until it is in the reader's
    hands; median and 99th percentile, in ms. Above 2,000 records/s what is due every 5 ms is handed over
    together.
replay-100, replay-1k
    The topic of the pipelined workload from its beginning, the fastest way the client offers, every payload
    in Python's hands: records/s, MB/s.
group
    The same topic through a durable group of one member, every record acknowledged: records/s.
failover
    ``kill -9`` of all processes of the topic's leader while one publisher publishes one record after
    another: the longest time without an acknowledgement from the kill on, in ms. Then the node is
    restarted, and once it is in sync the next leader is killed. Twenty times over all rounds: median and
    worst.
cpu, written
    Processor seconds (user and system; the client's and all nodes') and bytes that the nodes gave to the
    page cache for writing (``write_bytes``) during pipelined-100, per million records.
memory
    The highest sum of anonymous memory (``RssAnon``) of all nodes, sampled five times a second during all
    of the row's workloads, in MB. Mapped and cached files are not in it.
"""
