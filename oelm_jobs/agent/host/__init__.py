"""Running on a plain host: claims by flock, device leases, launch and cancel."""
