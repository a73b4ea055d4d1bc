"""The tool `doctor`: checks of a site, or of this machine, before the first job."""
