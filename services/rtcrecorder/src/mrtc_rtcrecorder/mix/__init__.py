"""The process that makes one mixed recording: pictures in a grid, all sound summed, H.264 and AAC in MP4."""
