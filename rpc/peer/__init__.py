"""The links between brokers: framed protobuf over TCP, driven by the engine thread."""
