"""What the lab records, as pandas frames: metrics now; alerts, logs and traces beside them."""
