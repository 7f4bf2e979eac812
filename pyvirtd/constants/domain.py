"""Numbers of libvirt's public API for domains, snapshots and checkpoints: its enumerations and flags.

The class name is the header's typedef without "vir"; a member is the constant without the words all members share.
"""

from enum import IntEnum, IntFlag


class ConnectDomainEventAgentLifecycleReason(IntEnum):
    CHANNEL = 2
    DOMAIN_STARTED = 1
    UNKNOWN = 0


class ConnectDomainEventAgentLifecycleState(IntEnum):
    CONNECTED = 1
    DISCONNECTED = 2


class ConnectGetAllDomainStatsFlags(IntFlag):
    ACTIVE = 0x1
    BACKING = 0x40000000
    ENFORCE_STATS = 0x80000000
    INACTIVE = 0x2
    NOWAIT = 0x20000000
    OTHER = 0x80
    PAUSED = 0x20
    PERSISTENT = 0x4
    RUNNING = 0x10
    SHUTOFF = 0x40
    TRANSIENT = 0x8


class ConnectListAllDomainsFlags(IntFlag):
    ACTIVE = 0x1
    AUTOSTART = 0x400
    HAS_CHECKPOINT = 0x4000
    HAS_SNAPSHOT = 0x1000
    INACTIVE = 0x2
    MANAGEDSAVE = 0x100
    NO_AUTOSTART = 0x800
    NO_CHECKPOINT = 0x8000
    NO_MANAGEDSAVE = 0x200
    NO_SNAPSHOT = 0x2000
    OTHER = 0x80
    PAUSED = 0x20
    PERSISTENT = 0x4
    RUNNING = 0x10
    SHUTOFF = 0x40
    TRANSIENT = 0x8


class DomainAbortJobFlagsValues(IntFlag):
    POSTCOPY = 0x1


class DomainModificationImpact(IntFlag):
    CONFIG = 0x2
    CURRENT = 0x0
    LIVE = 0x1


class DomainAgentResponseTimeoutValues(IntEnum):
    BLOCK = -2
    DEFAULT = -1
    NOWAIT = 0


class DomainAuthorizedSSHKeysSetFlags(IntFlag):
    APPEND = 0x1
    REMOVE = 0x2


class DomainState(IntEnum):
    BLOCKED = 2
    CRASHED = 6
    NOSTATE = 0
    PAUSED = 3
    PMSUSPENDED = 7
    RUNNING = 1
    SHUTDOWN = 4
    SHUTOFF = 5


class DomainBlockJobInfoFlags(IntFlag):
    BANDWIDTH_BYTES = 0x1


class DomainChannelFlags(IntFlag):
    FORCE = 0x1


class DomainCheckpointCreateFlags(IntFlag):
    QUIESCE = 0x2
    REDEFINE = 0x1
    REDEFINE_VALIDATE = 0x4


class DomainCheckpointXMLFlags(IntFlag):
    NO_DOMAIN = 0x2
    SECURE = 0x1
    SIZE = 0x4


class DomainConsoleFlags(IntFlag):
    FORCE = 0x1
    SAFE = 0x2


class DomainControlState(IntEnum):
    ERROR = 3
    JOB = 1
    OCCUPIED = 2
    OK = 0


class DomainCoreDumpFormat(IntEnum):
    KDUMP_LZO = 2
    KDUMP_SNAPPY = 3
    KDUMP_ZLIB = 1
    RAW = 0
    WIN_DMP = 4


class DomainCrashedReason(IntEnum):
    PANICKED = 1
    UNKNOWN = 0


class DomainDefineFlags(IntFlag):
    VALIDATE = 0x1


class DomainDestroyFlagsValues(IntFlag):
    DEFAULT = 0x0
    GRACEFUL = 0x1
    REMOVE_LOGS = 0x2


class DomainDirtyRateCalcFlags(IntFlag):
    DIRTY_BITMAP = 0x1
    DIRTY_RING = 0x2
    PAGE_SAMPLING = 0x0


class DomainDiskErrorCode(IntEnum):
    NONE = 0
    NO_SPACE = 2
    UNSPEC = 1


class DomainEventType(IntEnum):
    CRASHED = 8
    DEFINED = 0
    PMSUSPENDED = 7
    RESUMED = 4
    SHUTDOWN = 6
    STARTED = 2
    STOPPED = 5
    SUSPENDED = 3
    UNDEFINED = 1


class DomainEventCrashedDetailType(IntEnum):
    CRASHLOADED = 1
    PANICKED = 0


class DomainEventDefinedDetailType(IntEnum):
    ADDED = 0
    FROM_SNAPSHOT = 3
    RENAMED = 2
    UPDATED = 1


class ConnectDomainEventDiskChangeReason(IntEnum):
    CHANGE_MISSING_ON_START = 0
    DROP_MISSING_ON_START = 1


class DomainEventGraphicsPhase(IntEnum):
    CONNECT = 0
    DISCONNECT = 2
    INITIALIZE = 1


class DomainEventID(IntEnum):
    AGENT_LIFECYCLE = 18
    BALLOON_CHANGE = 13
    BLOCK_JOB = 8
    BLOCK_JOB_2 = 16
    BLOCK_THRESHOLD = 24
    CONTROL_ERROR = 7
    DEVICE_ADDED = 19
    DEVICE_REMOVAL_FAILED = 22
    DEVICE_REMOVED = 15
    DISK_CHANGE = 9
    GRAPHICS = 5
    IO_ERROR = 4
    IO_ERROR_REASON = 6
    JOB_COMPLETED = 21
    LIFECYCLE = 0
    MEMORY_DEVICE_SIZE_CHANGE = 26
    MEMORY_FAILURE = 25
    METADATA_CHANGE = 23
    MIGRATION_ITERATION = 20
    PMSUSPEND = 12
    PMSUSPEND_DISK = 14
    PMWAKEUP = 11
    REBOOT = 1
    RTC_CHANGE = 2
    TRAY_CHANGE = 10
    TUNABLE = 17
    WATCHDOG = 3


class DomainEventIOErrorAction(IntEnum):
    NONE = 0
    PAUSE = 1
    REPORT = 2


class DomainMemoryFailureActionType(IntEnum):
    FATAL = 2
    IGNORE = 0
    INJECT = 1
    RESET = 3


class DomainMemoryFailureRecipientType(IntEnum):
    GUEST = 1
    HYPERVISOR = 0


class DomainEventPMSuspendedDetailType(IntEnum):
    DISK = 1
    MEMORY = 0


class DomainEventResumedDetailType(IntEnum):
    FROM_SNAPSHOT = 2
    MIGRATED = 1
    POSTCOPY = 3
    POSTCOPY_FAILED = 4
    UNPAUSED = 0


class DomainEventShutdownDetailType(IntEnum):
    FINISHED = 0
    GUEST = 1
    HOST = 2


class DomainEventStartedDetailType(IntEnum):
    BOOTED = 0
    FROM_SNAPSHOT = 3
    MIGRATED = 1
    RESTORED = 2
    WAKEUP = 4


class DomainEventStoppedDetailType(IntEnum):
    CRASHED = 2
    DESTROYED = 1
    FAILED = 5
    FROM_SNAPSHOT = 6
    MIGRATED = 3
    SAVED = 4
    SHUTDOWN = 0


class DomainEventSuspendedDetailType(IntEnum):
    API_ERROR = 6
    FROM_SNAPSHOT = 5
    IOERROR = 2
    MIGRATED = 1
    PAUSED = 0
    POSTCOPY = 7
    POSTCOPY_FAILED = 8
    RESTORED = 4
    WATCHDOG = 3


class DomainEventTrayChangeReason(IntEnum):
    CLOSE = 1
    OPEN = 0


class DomainEventUndefinedDetailType(IntEnum):
    REMOVED = 0
    RENAMED = 1


class DomainEventWatchdogAction(IntEnum):
    DEBUG = 5
    INJECTNMI = 6
    NONE = 0
    PAUSE = 1
    POWEROFF = 3
    RESET = 2
    SHUTDOWN = 4


class DomainGetHostnameFlags(IntFlag):
    AGENT = 0x2
    LEASE = 0x1


class DomainGuestInfoTypes(IntEnum):
    DISKS = 32
    FILESYSTEM = 16
    HOSTNAME = 8
    INTERFACES = 64
    OS = 2
    TIMEZONE = 4
    USERS = 1


class DomainInterfaceAddressesSource(IntEnum):
    AGENT = 1
    ARP = 2
    LEASE = 0


class DomainJobType(IntEnum):
    BOUNDED = 1
    CANCELLED = 5
    COMPLETED = 3
    FAILED = 4
    NONE = 0
    UNBOUNDED = 2


class DomainJobOperation(IntEnum):
    BACKUP = 9
    DUMP = 8
    MIGRATION_IN = 4
    MIGRATION_OUT = 5
    RESTORE = 3
    SAVE = 2
    SNAPSHOT = 6
    SNAPSHOT_DELETE = 10
    SNAPSHOT_REVERT = 7
    START = 1
    UNKNOWN = 0


class DomainGetJobStatsFlags(IntFlag):
    COMPLETED = 0x1
    KEEP_COMPLETED = 0x2


class DomainLifecycleAction(IntEnum):
    COREDUMP_DESTROY = 4
    COREDUMP_RESTART = 5
    DESTROY = 0
    PRESERVE = 3
    RESTART = 1
    RESTART_RENAME = 2


class DomainLifecycle(IntEnum):
    CRASH = 2
    POWEROFF = 0
    REBOOT = 1


class DomainMemoryStatTags(IntEnum):
    ACTUAL_BALLOON = 6
    AVAILABLE = 5
    DISK_CACHES = 10
    HUGETLB_PGALLOC = 11
    HUGETLB_PGFAIL = 12
    LAST_UPDATE = 9
    MAJOR_FAULT = 2
    MINOR_FAULT = 3
    NR = 13
    RSS = 7
    SWAP_IN = 0
    SWAP_OUT = 1
    UNUSED = 4
    USABLE = 8


class DomainMemoryModFlags(IntFlag):
    CONFIG = 0x2
    CURRENT = 0x0
    LIVE = 0x1
    MAXIMUM = 0x4


class DomainMessageType(IntFlag):
    DEPRECATION = 1
    TAINTING = 2


class DomainMetadataType(IntEnum):
    DESCRIPTION = 0
    ELEMENT = 2
    TITLE = 1


class DomainCreateFlags(IntFlag):
    NONE = 0x0
    AUTODESTROY = 0x2
    BYPASS_CACHE = 0x4
    FORCE_BOOT = 0x8
    PAUSED = 0x1
    RESET_NVRAM = 0x20
    VALIDATE = 0x10


class DomainFDAssociateFlags(IntFlag):
    SECLABEL_RESTORE = 0x1
    SECLABEL_WRITABLE = 0x2


class DomainOpenGraphicsFlags(IntFlag):
    SKIPAUTH = 0x1


class DomainSetUserPasswordFlags(IntFlag):
    ENCRYPTED = 0x1


class DomainPausedReason(IntEnum):
    CRASHED = 10
    DUMP = 4
    FROM_SNAPSHOT = 7
    IOERROR = 5
    MIGRATION = 2
    POSTCOPY = 12
    POSTCOPY_FAILED = 13
    SAVE = 3
    SHUTTING_DOWN = 8
    SNAPSHOT = 9
    STARTING_UP = 11
    UNKNOWN = 0
    USER = 1
    WATCHDOG = 6


class DomainPMSuspendedReason(IntEnum):
    UNKNOWN = 0


class DomainRebootFlagValues(IntFlag):
    ACPI_POWER_BTN = 0x1
    DEFAULT = 0x0
    GUEST_AGENT = 0x2
    INITCTL = 0x4
    PARAVIRT = 0x10
    SIGNAL = 0x8


class DomainRunningReason(IntEnum):
    BOOTED = 1
    CRASHED = 9
    FROM_SNAPSHOT = 4
    MIGRATED = 2
    MIGRATION_CANCELED = 6
    POSTCOPY = 10
    POSTCOPY_FAILED = 11
    RESTORED = 3
    SAVE_CANCELED = 7
    UNKNOWN = 0
    UNPAUSED = 5
    WAKEUP = 8


class DomainSaveRestoreFlags(IntFlag):
    BYPASS_CACHE = 0x1
    PAUSED = 0x4
    RESET_NVRAM = 0x8
    RUNNING = 0x2


class DomainSaveImageXMLFlags(IntFlag):
    SECURE = 0x1


class DomainShutdownFlagValues(IntFlag):
    ACPI_POWER_BTN = 0x1
    DEFAULT = 0x0
    GUEST_AGENT = 0x2
    INITCTL = 0x4
    PARAVIRT = 0x10
    SIGNAL = 0x8


class DomainShutdownReason(IntEnum):
    UNKNOWN = 0
    USER = 1


class DomainShutoffReason(IntEnum):
    CRASHED = 3
    DAEMON = 8
    DESTROYED = 2
    FAILED = 6
    FROM_SNAPSHOT = 7
    MIGRATED = 4
    SAVED = 5
    SHUTDOWN = 1
    UNKNOWN = 0


class DomainSnapshotCreateFlags(IntFlag):
    ATOMIC = 0x80
    CURRENT = 0x2
    DISK_ONLY = 0x10
    HALT = 0x8
    LIVE = 0x100
    NO_METADATA = 0x4
    QUIESCE = 0x40
    REDEFINE = 0x1
    REUSE_EXT = 0x20
    VALIDATE = 0x200


class DomainSnapshotXMLFlags(IntFlag):
    SECURE = 0x1


class DomainStatsTypes(IntFlag):
    BALLOON = 0x4
    BLOCK = 0x20
    CPU_TOTAL = 0x2
    DIRTYRATE = 0x200
    INTERFACE = 0x10
    IOTHREAD = 0x80
    MEMORY = 0x100
    PERF = 0x40
    STATE = 0x1
    VCPU = 0x8
    VM = 0x400


class DomainSetTimeFlags(IntFlag):
    SYNC = 0x1


class DomainUndefineFlagsValues(IntFlag):
    CHECKPOINTS_METADATA = 0x10
    KEEP_NVRAM = 0x8
    KEEP_TPM = 0x40
    MANAGED_SAVE = 0x1
    NVRAM = 0x4
    SNAPSHOTS_METADATA = 0x2
    TPM = 0x20


class DomainVcpuFlags(IntFlag):
    CONFIG = 0x2
    CURRENT = 0x0
    GUEST = 0x8
    HOTPLUGGABLE = 0x10
    LIVE = 0x1
    MAXIMUM = 0x4


class DomainXMLFlags(IntFlag):
    INACTIVE = 0x2
    MIGRATABLE = 0x8
    SECURE = 0x1
    UPDATE_CPU = 0x4


class DomainCoreDumpFlags(IntFlag):
    BYPASS_CACHE = 0x4
    CRASH = 0x1
    LIVE = 0x2
    MEMORY_ONLY = 0x10
    RESET = 0x8


class KeycodeSet(IntEnum):
    ATSET1 = 2
    ATSET2 = 3
    ATSET3 = 4
    LINUX = 0
    OSX = 5
    QNUM = 9
    USB = 7
    WIN32 = 8
    XT = 1
    XT_KBD = 6


class DomainMemoryFlags(IntFlag):
    PHYSICAL = 0x2
    VIRTUAL = 0x1


class VcpuState(IntEnum):
    BLOCKED = 2
    OFFLINE = 0
    RUNNING = 1
