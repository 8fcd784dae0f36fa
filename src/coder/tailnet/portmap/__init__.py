"""Port mappings: the router is asked to forward one of its UDP ports to ours, so that peers reach us unasked.

`machine` decides, `values` are what it says, `report` is what came of it. Nothing is imported here: the report is
wanted long before the machine.
"""
