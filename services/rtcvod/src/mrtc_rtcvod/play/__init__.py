"""The process that plays one file: reads, transcodes if need be, and hands frames out when they are due."""
