"""The pure part: state of transports, fan-out of events, pacing of speaker notices."""
