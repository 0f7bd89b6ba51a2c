"""Processes that hold one model each and are timed: ours and the peers', with the driver that starts and asks them."""
