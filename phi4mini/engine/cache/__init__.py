"""The KV cache: pages in memory and on disk, how many there are."""
