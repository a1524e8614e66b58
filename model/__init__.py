"""The driving policy: rigs, network, training, export."""
