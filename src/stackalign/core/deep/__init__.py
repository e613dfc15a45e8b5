"""Registration by networks: geometry, data, networks, training. torch is imported when it is used."""
