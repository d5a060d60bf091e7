"""Where steps run: `port` is what every executor is, `local` a child process on this machine."""
