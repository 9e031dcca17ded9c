"""The lab: seeds faults into a real stack and shows which requirement catches which."""
