"""Every error that a person can meet. Each message is one line: what came, what was needed, what to do.

MtlError
├── ConfigError       a setting out of its bounds, unknown, or at odds with another
├── PhotoError        a file that is no photo, or one that cannot be read whole
├── DataError         a data folder: its layout, labels, masks or splits
│   └── ArchiveError      an uploaded zip: broken, hostile, or without photos
├── CheckpointError   weights that cannot be read, or that belong to another network
├── DeviceError       a device that is not there
├── RunError          a run's folder, or a run that cannot start, stop or go on
│   ├── DivergedError     a loss or gradient that is not finite
│   └── MemoryLimitError  a batch that does not fit into the memory, however it is cut
├── DiskFullError     no space left to write to
├── AddressError      an address or port that the page cannot be served at
├── RequestError      a request that a program sent: too large, too many, without a photo
├── ExportError       a network that cannot be written in another format, or that answers otherwise there
└── HubError          what the Hugging Face Hub refused, or a name that it cannot have
    ├── HubConnectionError   no answer: no network, refused, nothing sent, too slow
    ├── HubAccessError       401 and 403: no token, a wrong one, or one without that right
    ├── HubNotFoundError     404: no such repository, revision or file, or a private one
    ├── HubConflictError     409 and 412: somebody else has changed it meanwhile
    ├── HubBusyError         429 and 5xx: it asks to wait, or has a fault
    ├── HubFileError         a file that came truncated, or with another hash than the Hub's
    └── TransferCancelledError
"""


class MtlError(Exception):
    """The root: the command line prints it as one line and exits with 1, the page shows it as a message.

    `text` with its {placeholders} filled by `values`; both are kept, so that the page can translate them.
    """

    def __init__(self, text: str, **values: object):
        super().__init__(text.format(**values) if values else text)
        self.text, self.values = text, values

    def __str__(self) -> str:
        # What came is quoted in messages, and may hold anything: a photo's name in a label file, a key of a config.
        return "".join(character if character.isprintable() else " " for character in super().__str__())


class ConfigError(MtlError):
    pass


class PhotoError(MtlError):
    pass


class DataError(MtlError):
    pass


class ArchiveError(DataError):
    pass


class CheckpointError(MtlError):
    pass


class DeviceError(MtlError):
    pass


class RunError(MtlError):
    pass


class DivergedError(RunError):
    pass


class MemoryLimitError(RunError):
    pass


class DiskFullError(MtlError):
    pass


class AddressError(MtlError):
    pass


class RequestError(MtlError):
    pass


class ExportError(MtlError):
    pass


class HubError(MtlError):
    pass


class HubConnectionError(HubError):
    pass


class HubAccessError(HubError):
    pass


class HubNotFoundError(HubError):
    pass


class HubConflictError(HubError):
    pass


class HubBusyError(HubError):
    pass


class HubFileError(HubError):
    pass


class TransferCancelledError(HubError):
    pass
