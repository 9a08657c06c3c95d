"""Player of the MRTC suite: takes vod jobs, plays media files into rooms as virtual participants."""
