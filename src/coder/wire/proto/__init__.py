"""The protobuf schemas of the control plane and the modules generated from them by `scripts/proto.py`."""
