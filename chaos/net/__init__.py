"""The network between brokers and clients, to be cut, delayed and narrowed on purpose."""
