"""Work that several processes do at once: on the cores of a CPU, or on all devices of a machine."""
