"""Which requests take part in the next pass, and with how many rows."""
