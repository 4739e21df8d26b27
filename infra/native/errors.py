"""What can go wrong here, in words for the person at the terminal."""


class NativeError(Exception):
    """A native server could not be installed or run."""


class InstallError(NativeError):
    """A program, package or download is missing."""


class DownloadError(InstallError):
    """A download failed; trying again may help."""


class NodeError(NativeError):
    """A server did not start, answer or stop."""
