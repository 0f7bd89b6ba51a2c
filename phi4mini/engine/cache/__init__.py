"""The KV cache: pages in memory and on disk, how many there are, and which of them a request holds."""
