"""What ``lseg_app.py`` is made of: places of files, checked input, one network for all visitors, pictures, the page."""
