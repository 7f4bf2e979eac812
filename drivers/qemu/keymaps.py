"""Keys by their number in each set that clients may use, and QEMU's own number for them.

QEMU's numbers ("qnum") are those of a PC keyboard's first scan code set, with 0x80 added where the keyboard sends e0
before it. The Linux kernel's numbers are in <linux/input-event-codes.h>, USB's in the HID usage tables, page 7.
"""

from collections.abc import Iterator
from functools import cache

from pyvirtd.constants.domain import KeycodeSet

# Name and number on Linux, decimal; then hexadecimal: QEMU's number, AT set 2, AT set 3, USB, Windows, Mac OS X.
TABLE = """\
NAME              LINUX  QNUM   AT2  AT3  USB  WIN  OSX
ESC                   1     1    76    8   29   1b   35
1                     2     2    16   16   1e   31   12
2                     3     3    1e   1e   1f   32   13
3                     4     4    26   26   20   33   14
4                     5     5    25   25   21   34   15
5                     6     6    2e   2e   22   35   17
6                     7     7    36   36   23   36   16
7                     8     8    3d   3d   24   37   1a
8                     9     9    3e   3e   25   38   1c
9                    10     a    46   46   26   39   19
0                    11     b    45   45   27   30   1d
MINUS                12     c    4e   4e   2d   bd   1b
EQUAL                13     d    55   55   2e   bb   18
BACKSPACE            14     e    66   66   2a    8   33
TAB                  15     f     d    d   2b    9   30
Q                    16    10    15   15   14   51    c
W                    17    11    1d   1d   1a   57    d
E                    18    12    24   24    8   45    e
R                    19    13    2d   2d   15   52    f
T                    20    14    2c   2c   17   54   11
Y                    21    15    35   35   1c   59   10
U                    22    16    3c   3c   18   55   20
I                    23    17    43   43    c   49   22
O                    24    18    44   44   12   4f   1f
P                    25    19    4d   4d   13   50   23
LEFTBRACE            26    1a    54   54   2f   db   21
RIGHTBRACE           27    1b    5b   5b   30   dd   1e
ENTER                28    1c    5a   5a   28    d   24
LEFTCTRL             29    1d    14   11   e0   11   3b
A                    30    1e    1c   1c    4   41    0
S                    31    1f    1b   1b   16   53    1
D                    32    20    23   23    7   44    2
F                    33    21    2b   2b    9   46    3
G                    34    22    34   34    a   47    5
H                    35    23    33   33    b   48    4
J                    36    24    3b   3b    d   4a   26
K                    37    25    42   42    e   4b   28
L                    38    26    4b   4b    f   4c   25
SEMICOLON            39    27    4c   4c   33   ba   29
APOSTROPHE           40    28    52   52   34   de   27
GRAVE                41    29     e    e   35   c0   32
LEFTSHIFT            42    2a    12   12   e1   a0   38
BACKSLASH            43    2b    5d   5c   32   dc   2a
Z                    44    2c    1a   1a   1d   5a    6
X                    45    2d    22   22   1b   58    7
C                    46    2e    21   21    6   43    8
V                    47    2f    2a   2a   19   56    9
B                    48    30    32   32    5   42    b
N                    49    31    31   31   11   4e   2d
M                    50    32    3a   3a   10   4d   2e
COMMA                51    33    41   41   36   bc   2b
DOT                  52    34    49   49   37   be   2f
SLASH                53    35    4a   4a   38   bf   2c
RIGHTSHIFT           54    36    59   59   e5   a1   3c
KPASTERISK           55    37    7c   7e   55   6a   43
LEFTALT              56    38    11   19   e2   12   3a
SPACE                57    39    29   29   2c   20   31
CAPSLOCK             58    3a    58   14   39   14   39
F1                   59    3b     5    7   3a   70   7a
F2                   60    3c     6    f   3b   71   78
F3                   61    3d     4   17   3c   72   63
F4                   62    3e     c   1f   3d   73   76
F5                   63    3f     3   27   3e   74   60
F6                   64    40     b   2f   3f   75   61
F7                   65    41    83   37   40   76   62
F8                   66    42     a   3f   41   77   64
F9                   67    43     1   47   42   78   65
F10                  68    44     9   4f   43   79   6d
NUMLOCK              69    45    77   76   53   90   47
SCROLLLOCK           70    46    7e   5f   47   91    -
KP7                  71    47    6c   6c   5f   67   59
KP8                  72    48    75   75   60   68   5b
KP9                  73    49    7d   7d   61   69   5c
KPMINUS              74    4a    7b    -   56   6d   4e
KP4                  75    4b    6b   6b   5c   64   56
KP5                  76    4c    73   73   5d   65   57
KP6                  77    4d    74   74   5e   66   58
KPPLUS               78    4e    79   7c   57   6b   45
KP1                  79    4f    69   69   59   61   53
KP2                  80    50    72   72   5a   62   54
KP3                  81    51    7a   7a   5b   63   55
KP0                  82    52    70   70   62   60   52
KPDOT                83    53    71   71   63   6e   41
-                    84    54    7f   57   46   2c    -
ZENKAKUHANKAKU       85    76    5f    -   94    -    -
102ND                86    56    61   13   64   e2    -
F11                  87    57    78   56   44   7a   67
F12                  88    58     7   5e   45   7b   6f
RO                   89    73    51    -   87    -   5e
KATAKANA             90    78    63    -   92   15    -
HIRAGANA             91    77    62   87   93    -    -
HENKAN               92    79    64   86   8a   1c    -
KATAKANAHIRAGANA     93    70    13    -   88   f2    -
MUHENKAN             94    7b    67   85   8b   1d    -
KPJPCOMMA            95    5c    27    -   8c    -   5f
KPENTER              96    9c  e05a   79   58    -   4c
RIGHTCTRL            97    9d  e014   58   e4   a3   3e
KPSLASH              98    b5  e04a    -   54   6f   4b
SYSRQ                99    54     -    -    -    -    -
RIGHTALT            100    b8  e011   39   e6   a5   3d
LINEFEED            101    5b     -    -    -    -    -
HOME                102    c7  e06c   6e   4a   24   73
UP                  103    c8  e075   63   52   26   7e
PAGEUP              104    c9  e07d   6f   4b   21   74
LEFT                105    cb  e06b   61   50   25   7b
RIGHT               106    cd  e074   6a   4f   27   7c
END                 107    cf  e069   65   4d   23   77
DOWN                108    d0  e072   60   51   28   7d
PAGEDOWN            109    d1  e07a   6d   4e   22   79
INSERT              110    d2  e070   67   49   2d    -
DELETE              111    d3  e071   64   4c   2e   75
MACRO               112    ef  e06f   8e    -    -    -
MUTE                113    a0  e023   9c   ef   ad   4a
VOLUMEDOWN          114    ae  e021   9d   ee   ae   49
VOLUMEUP            115    b0  e032   95   ed   af   48
POWER               116    de  e037    -   66    -    -
KPEQUAL             117    59     f    -   67    -   51
KPPLUSMINUS         118    ce  e079    -    -    -    -
PAUSE               119    c6  e077   62   48   13    -
SCALE               120    8b     -    -    -    -    -
KPCOMMA             121    7e    6d    -   85   6c    -
HANGEUL             122    72     -    -   90   16   68
HANJA               123    71     -    -   91   1a   66
YEN                 124    7d    6a   5d   89    -   5d
LEFTMETA            125    db  e01f   8b   e3   5b   37
RIGHTMETA           126    dc  e027   8c   e7   5c   36
COMPOSE             127    dd  e02f   8d   65   5d   6e
STOP                128    e8  e028    a   f3   a9    -
AGAIN               129    85     -    b   79    -    -
PROPS               130    86     -    c    -    -    -
UNDO                131    87     -   10   7a    -    -
FRONT               132    8c     -    -   77    -    -
COPY                133    f8     -   18   7c    -    -
OPEN                134    64     -   20   74    -    -
PASTE               135    65     -   28   7d    -    -
FIND                136    c1     -   30   f4    -    -
CUT                 137    bc     -   38   7b    -    -
HELP                138    f5     -    9   75   2f   72
MENU                139    9e     -   91   76    -    -
CALC                140    a1  e02b   a3   fb    -    -
SETUP               141    66     -    -    -    -    -
SLEEP               142    df  e03f    -   f8   5f    -
WAKEUP              143    e3  e05e    -    -    -    -
FILE                144    67     -    -    -    -    -
SENDFILE            145    68     -    -    -    -    -
DELETEFILE          146    69     -    -    -    -    -
XFER                147    93     -   a2    -    -    -
PROG1               148    9f     -   a0    -    -    -
PROG2               149    97     -   a1    -    -    -
WWW                 150    82     -    -   f0    -    -
MSDOS               151    6a     -    -    -    -    -
COFFEE              152    92     -   96   f9    -    -
ROTATE_DISPLAY      153    6b     -    -    -    -    -
CYCLEWINDOWS        154    a6     -   9b    -    -    -
MAIL                155    ec  e048    -    -    -    -
BOOKMARKS           156    e6  e018    -    -    -    -
COMPUTER            157    eb  e040    -    -    -    -
BACK                158    ea  e038    -   f1   a6    -
FORWARD             159    e9  e030    -   f2   a7    -
CLOSECD             160    a3     -   9a    -    -    -
EJECTCD             161    6c     -    -   ec    -    -
EJECTCLOSECD        162    fd     -    -    -    -    -
NEXTSONG            163    99  e04d   93   eb   b0    -
PLAYPAUSE           164    a2  e034    -   e8   b3    -
PREVIOUSSONG        165    90  e015   94   ea   b1    -
STOPCD              166    a4  e03b   98   e9   b2    -
RECORD              167    b1     -   9e    -    -    -
REWIND              168    98     -   9f    -    -    -
PHONE               169    63     -    -    -    -    -
CONFIG              171    81     -    -    -    -    -
HOMEPAGE            172    b2  e03a   97    -   ac    -
REFRESH             173    e7  e020    -   fa   a8    -
EDIT                176    88     -    -   f7    -    -
SCROLLUP            177    75     -    -   f5    -    -
SCROLLDOWN          178    8f     -    -   f6    -    -
KPLEFTPAREN         179    f6     -    -   b6    -    -
KPRIGHTPAREN        180    fb     -    -   b7    -    -
NEW                 181    89     -    -    -    -    -
REDO                182    8a     -    -    -    -    -
F13                 183    5d    2f   7f   68   7c   69
F14                 184    5e    37   80   69   7d   6b
F15                 185    5f    3f   81   6a   7e   71
F16                 186    55     -   82   6b   7f   6a
F17                 187    83     -   83   6c   80   40
F18                 188    f7     -    -   6d   81   4f
F19                 189    84     -    -   6e   82   50
F20                 190    5a     -    -   6f   83   5a
F21                 191    74     -    -   70   84    -
F22                 192    f9     -    -   71   85    -
F23                 193    6d     -    -   72   86    -
F24                 194    6f     -    -   73   87    -
-                   195    95     -    -    -    -    -
-                   196    96     -    -    -    -    -
-                   197    9a     -    -    -    -    -
-                   198    9b     -    -    -    -    -
-                   199    a7     -    -    -    -    -
PLAYCD              200    a8     -    -    -    -    -
PAUSECD             201    a9     -    -    -    -    -
PROG3               202    ab     -    -    -    -    -
PROG4               203    ac     -    -    -    -    -
ALL_APPLICATIONS    204    ad     -    -    -    -    -
SUSPEND             205    a5     -    -    -    -    -
CLOSE               206    af     -    -    -    -    -
PLAY                207    b3     -    -    -   fa    -
FASTFORWARD         208    b4     -    -    -    -    -
BASSBOOST           209    b6     -    -    -    -    -
PRINT               210    b9     -    -    -   2a    -
HP                  211    ba     -    -    -    -    -
CAMERA              212    bb     -    -    -    -    -
SOUND               213    bd     -    -    -    -    -
QUESTION            214    be     -    -    -    -    -
EMAIL               215    bf     -    -    -   b4    -
CHAT                216    c0     -    -    -    -    -
SEARCH              217    e5  e010    -    -   aa    -
CONNECT             218    c2     -    -    -    -    -
FINANCE             219    c3     -    -    -    -    -
SPORT               220    c4     -    -    -    -    -
SHOP                221    c5     -    -    -    -    -
ALTERASE            222    94     -    -    -    -    -
CANCEL              223    ca     -    -    -    -    -
BRIGHTNESSDOWN      224    cc     -    -    -    -    -
BRIGHTNESSUP        225    d4     -    -    -    -    -
MEDIA               226    ed  e050    -    -    -    -
SWITCHVIDEOMODE     227    d6     -    -    -    -    -
KBDILLUMTOGGLE      228    d7     -    -    -    -    -
KBDILLUMDOWN        229    d8     -    -    -    -    -
KBDILLUMUP          230    d9     -    -    -    -    -
SEND                231    da     -    -    -    -    -
REPLY               232    e4     -    -    -    -    -
FORWARDMAIL         233    8e     -    -    -    -    -
SAVE                234    d5     -    -    -    -    -
DOCUMENTS           235    f0     -    -    -    -    -
BATTERY             236    f1     -    -    -    -    -
BLUETOOTH           237    f2     -    -    -    -    -
WLAN                238    f3     -    -    -    -    -
UWB                 239    f4     -    -    -    -    -
"""

# Numbers that a set knows though a PC keyboard has no such key: they are taken, and QEMU is told key 0.
SILENT = {
    KeycodeSet.LINUX: (
        "170 174-175 240-265 272-279 288-299 303-318 320-327 330-337 352-439 448-451 464-484 497-506 512-524"
    ),
    KeycodeSet.ATSET2: "57362",
    KeycodeSet.OSX: "10 63 255",
    KeycodeSet.WIN32: "1-2 4-6 41 171 251",
}

COLUMNS = (KeycodeSet.ATSET2, KeycodeSet.ATSET3, KeycodeSet.USB, KeycodeSet.WIN32, KeycodeSet.OSX)
# How the first scan code set is written: what stands for the e0 before a code.
PREFIX = {KeycodeSet.XT: 0xE000, KeycodeSet.ATSET1: 0xE000, KeycodeSet.XT_KBD: 0x100}
EXTENDED = 0x80
# What libvirt calls the sets.
NAMES = {
    KeycodeSet.LINUX: "linux",
    KeycodeSet.XT: "xt",
    KeycodeSet.ATSET1: "atset1",
    KeycodeSet.ATSET2: "atset2",
    KeycodeSet.ATSET3: "atset3",
    KeycodeSet.OSX: "os_x",
    KeycodeSet.XT_KBD: "xt_kbd",
    KeycodeSet.USB: "usb",
    KeycodeSet.WIN32: "win32",
    KeycodeSet.QNUM: "qnum",
}


@cache
def to_qnum(keys: KeycodeSet) -> dict[int, int]:
    """QEMU's number for each number of a set; every set but QEMU's own, which needs none, has one."""
    found = {0: 0, **dict.fromkeys(_numbers(SILENT.get(keys, "")), 0)}
    for words in _rows():
        qnum = int(words[2], 16)
        if keys is KeycodeSet.LINUX:
            found[int(words[1])] = qnum
        elif keys in PREFIX:
            found[qnum & ~EXTENDED | (PREFIX[keys] if qnum & EXTENDED else 0)] = qnum
        else:
            cell = words[3 + COLUMNS.index(keys)]
            found |= {int(code, 16): qnum for code in cell.split(",") if code != "-"}
    return found


def _rows() -> Iterator[list[str]]:
    return (line.split() for line in TABLE.splitlines()[1:])


def _numbers(text: str) -> Iterator[int]:
    """The numbers of "3 7-9"."""
    for word in text.split():
        first, _, last = word.partition("-")
        yield from range(int(first), int(last or first) + 1)
