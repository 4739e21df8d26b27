"""Who asks, and what they may: the one place that decides. Until real access lands, everyone may everything."""
