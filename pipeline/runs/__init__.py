"""Does stages in this process: follows, tracks, sums up and draws what comes of them."""
