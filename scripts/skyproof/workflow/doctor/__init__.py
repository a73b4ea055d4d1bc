"""The tool `doctor`: is a site, or this machine, ready for the first job?"""
