"""The parts of ``lseg_app.py``: places of files, checked input, one network for all visitors, pictures, the page."""
