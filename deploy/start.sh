#!/bin/sh
# What a container does: make the volume a workspace where it is none yet, then become `espalier` with these arguments.
set -eu
if [ ! -d "$ESPALIER_WORKSPACE/.espalier" ]; then
    espalier init --no-starter "$ESPALIER_WORKSPACE" >&2
fi
exec espalier "$@"
