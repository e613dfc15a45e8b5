"""Joint alignment on a graphics card, through torch; imported only where one is used."""
