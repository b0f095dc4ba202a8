"""``make bench-growth``: what a long log, many partitions and a silent network do to Holdfast, alone.

log
    Two clusters on the same machine and disk, both up all the time. One has been grown to ``--gigabytes``
    (8) of payload, the other holds 200 to 400 MB: it is made anew before a burst could take it further.
    Bursts of 63 MB (records of 1 KiB, incompressible; ``publish_many``, three calls under way; three
    partitions) go to one and the other in turn, the order changing from pair to pair, so that what the
    machine and the disk do meanwhile hits both. The figure is the median of the large cluster's bursts
    divided by that of the small one's. A pair is not counted before each; before every burst all brokers
    have applied what was published.
restart
    A follower of one of these clusters gets ``kill -9`` and is started again: seconds from just before the
    process is made to its first answer to ``GetStatus`` that names a leader. Its files are in the page
    cache, as they are after a crash of a process. Large and small in turn, medians; the goal is that the
    large log's is at most half a second longer. Beside it: until the broker has applied all that its leader
    had committed.
partitions
    One cluster, a topic of 10 partitions and one of 1,000, the same records of 100 B by ``publish_many`` in
    turn, as long as two seconds each; the ratio of medians. Twice: whole batches, one partition after the
    other, which is what the SDK does with records that have no key; and records with keys, spread evenly
    over all partitions, where each call holds so few records per partition that batches become small: the
    mean count of what is acknowledged together is told.
silent
    Each broker in a network namespace of its own. The leader is cut off, without a word, from both other
    brokers and from the client; then the client, which knew that leader, publishes a record. Seconds from
    before the first rule of the packet filter is set to the record's acknowledgement, ten times. Setting
    the rules is part of it.

After every burst the acknowledged offsets have to follow on what was there, without a hole or a place given
twice, and brokers have to tell the same ends. After the cuts every record is read back from where it was
acknowledged.
"""
