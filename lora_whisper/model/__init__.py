"""The frozen Whisper backbone."""
