"""Work on media with libav: muxing, decoding, composing, mixing."""
