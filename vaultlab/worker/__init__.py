"""The process that owns a device: requests in, answers out."""

import os

# Passive: OpenMP threads that spin while another program computes slow both down a hundredfold. Here, before torch is
# imported, and not in the environment that the worker is given: nothing of that goes over ssh.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
