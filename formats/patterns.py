"""The plain-text lines we know, each with an example that a test reads.

The names of groups: `time`, `level`, `message` say what they are; `pri` is a syslog priority, `status` an HTTP status; every
other group goes to metadata under its name. A pattern is tried with `match`, so it need not name the end of the line.
A new kind of line is a new row here and nothing else; more telling rows stand before more general ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from formats.times import ISO, TimeReader

_SYSLOG_TIME: Final = r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"
_ACCESS_TIME: Final = r"\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}"
_LEVEL: Final = r"(?P<level>[A-Za-z]{3,13})"


@dataclass(frozen=True, slots=True)
class Pattern:
    """One kind of plain line. read_time: how its `time` group is read. is_usual: it has `time`, `level`, `message` and no other
    group."""

    name: str
    example: str
    read_time: Callable[[TimeReader, str], int | None]
    expression: re.Pattern[str]
    is_usual: bool


def _pattern(name: str, example: str, read_time: Callable[[TimeReader, str], int | None], *expression: str) -> Pattern:
    compiled = re.compile("".join(expression), re.ASCII | re.DOTALL)
    return Pattern(name, example, read_time, compiled, compiled.groupindex.keys() == {"time", "level", "message"})


PATTERNS: Final = (
    _pattern(
        "httpd-error",
        "[Fri Sep 09 10:42:29.902022 2011] [core:error] [pid 35708:tid 4328] [client 192.0.2.9:4711] File does not exist: /a",
        TimeReader.httpd,
        r"\[(?P<time>[A-Z][a-z]{2} [A-Z][a-z]{2} +\d{1,2} \d\d:\d\d:\d\d(?:\.\d{1,9})? \d{4})\] ",
        r"\[(?:(?P<module>[\w-]*):)?(?P<level>[a-z]+?)\d?\] (?:\[pid (?P<pid>[\d:tid ]+)\] )?",
        r"(?:\[client (?P<client>[^\]]+)\] )?(?P<message>.*)",
    ),
    _pattern(
        "access",
        '192.0.2.7 - ada [10/Oct/2000:13:55:36 -0700] "GET /index.html HTTP/1.1" 200 2326',
        TimeReader.access,
        r"(?P<client>\S+) \S+ (?P<user>\S+) \[(?P<time>",
        _ACCESS_TIME,
        r')\] (?P<message>".*" (?P<status>\d{3}) .*)',
    ),
    _pattern(
        "hdfs",
        "081109 203615 148 INFO dfs.DataNode$PacketResponder: PacketResponder 1 for block blk_38 terminating",
        TimeReader.compact,
        r"(?P<time>\d{6} \d{6}) (?P<pid>\d+) ",
        _LEVEL,
        r" (?P<logger>[\w.$-]+): (?P<message>.*)",
    ),
    _pattern(
        "zookeeper",
        "2015-07-29 17:41:44,747 - INFO  [QuorumPeer[myid=1]/0:0:0:0:2181:FastLeaderElection@774] - Notification time out",
        TimeReader.iso,
        rf"(?P<time>{ISO}) - ",
        _LEVEL,
        r" +\[(?P<thread>.+?)\] - (?P<message>.*)",
    ),
    _pattern(
        "openstack",
        "nova-api.log.1 2017-05-16 00:00:00.008 25746 INFO nova.wsgi.server [req-38101a0b-2096-447d-96ea-a692162415ae"
        ' 113d 54fa - - -] 10.11.10.1 "GET /v2" status: 200',
        TimeReader.iso,
        rf"(?:(?P<file>[^\s\[]+) )?(?P<time>{ISO}) (?P<pid>\d+) (?P<level>[A-Z]+) (?P<logger>[\w.-]+) ",
        r"\[(?:(?P<request_id>req-[\w-]+)(?: (?P<context>[^\]]*))?|-)\] (?P<message>.*)",
    ),
    _pattern(
        "spring",
        "2024-05-01 12:00:00.123  WARN 4711 --- [main] c.example.App : started slowly",
        TimeReader.iso,
        rf"(?P<time>{ISO}) +",
        _LEVEL,
        r" (?P<pid>\d+) --- \[ *(?P<thread>.+?)\] (?P<logger>\S+) *: (?P<message>.*)",
    ),
    _pattern(
        "log4j",
        "2015-10-18 18:01:47,978 INFO [IPC Server handler 20] org.apache.hadoop.mapred.TaskImpl: Progress is : 0.19",
        TimeReader.iso,
        rf"(?P<time>{ISO}) +",
        _LEVEL,
        r" +\[(?P<thread>.+?)\] (?P<logger>[\w.$-]+) ?(?::| -) (?P<message>.*)",
    ),
    _pattern(
        "python",
        "2024-05-01 12:00:00,123 - billing.worker - ERROR - could not charge",
        TimeReader.iso,
        rf"(?P<time>{ISO}) - (?P<logger>[\w.-]+) - ",
        _LEVEL,
        r" - (?P<message>.*)",
    ),
    _pattern(
        "postgresql",
        "2024-05-01 12:00:00.123 UTC [4711] app@db ERROR:  relation does not exist",
        TimeReader.iso,
        rf"(?P<time>{ISO}) \[(?P<pid>[\d-]+)\] (?:(?P<user>[^\s:]+) )?(?P<level>[A-Z]+[1-5]?): +(?P<message>.*)",
    ),
    _pattern(
        "nginx-error",
        "2023/01/02 03:04:05 [error] 123#0: *1 open() failed",
        TimeReader.slashes,
        r"(?P<time>\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) \[(?P<level>[a-z]+)\] (?P<pid>\d+)#\d+: (?P<message>.*)",
    ),
    _pattern(
        "go",
        "2023/01/02 03:04:05.123456 main.go:12: listening",
        TimeReader.slashes,
        r"(?P<time>\d{4}/\d\d/\d\d \d\d:\d\d:\d\d(?:\.\d{1,9})?) (?P<message>.*)",
    ),
    _pattern(
        "container",
        "2016-10-06T00:17:09.669794202Z stderr F cannot bind",
        TimeReader.iso,
        rf"(?P<time>{ISO}) (?P<stream>stdout|stderr) [FP] (?P<message>.*)",
    ),
    _pattern(
        "syslog-5424",
        "<34>1 2003-10-11T22:14:15.003Z host.example su 77 ID47 - 'su root' failed",
        TimeReader.iso,
        rf"<(?P<pri>\d{{1,3}})>1 (?P<time>{ISO}) (?P<host>\S+) (?P<process>\S+) (?P<pid>\S+) (?P<message_id>\S+) ",
        r'(?:-|(?P<structured>(?:\[(?:[^\]"]|"(?:[^"\\]|\\.)*")*\])+)) ?(?P<message>.*)',
    ),
    _pattern(
        "syslog",
        "Dec 10 06:55:46 LabSZ sshd[24200]: Invalid user webmaster from 192.0.2.186",
        TimeReader.syslog,
        r"(?:<(?P<pri>\d{1,3})>)?(?P<time>",
        _SYSLOG_TIME,
        r") (?P<host>[\w.:-]+) (?P<process>[^\s\[:]+)(?:\[(?P<pid>\d+)\])?: ?(?P<message>.*)",
    ),
    _pattern(
        "journal",
        "2024-05-01T12:00:00+0200 web1 sshd[24200]: Accepted publickey",
        TimeReader.iso,
        rf"(?P<time>{ISO}) (?P<host>[\w.-]+) (?P<process>[^\s\[:]+)\[(?P<pid>\d+)\]: (?P<message>.*)",
    ),
    _pattern(
        "klog",
        "E0102 15:04:05.000000   12345 server.go:123] cannot list nodes",
        TimeReader.klog,
        r"(?P<level>[IWEF])(?P<time>\d{4} \d\d:\d\d:\d\d\.\d{6}) +(?P<pid>\d+) (?P<source>[\w./-]+:\d+)\] (?P<message>.*)",
    ),
    _pattern(
        "time-level",
        "[2024-05-01T12:00:00.123Z] [WARN] disk is filling",
        TimeReader.iso,
        rf"\[?(?P<time>{ISO})\]?,?(?: -)? +[\[(<]?",
        r"(?P<level>(?i:trace|debug|info|notice|warn|warning|error|err|severe|fatal|critical|crit|alert|emerg|panic))",
        r"(?:[\])>:,]| -|(?= ))+ *(?P<message>.*)",
    ),
    _pattern(
        "level-time",
        "ERROR 2024-05-01 12:00:00,123 cannot reach the database",
        TimeReader.iso,
        r"\[?",
        r"(?P<level>(?i:trace|debug|info|notice|warn|warning|error|err|severe|fatal|critical|crit|alert|emerg|panic))",
        rf"\]?:? +\[?(?P<time>{ISO})\]?:?,?(?: -)? +(?P<message>.*)",
    ),
    _pattern(
        "logfmt",
        'time=2024-05-01T12:00:00Z level=warning msg="disk is filling" disk=sda',
        TimeReader.iso,
        rf'(?=.*?\b(?:time|ts|t)="?(?P<time>{ISO}))(?=.*?\b(?:level|lvl)="?(?P<level>[A-Za-z]+))(?P<message>.*)',
    ),
    _pattern(
        "time",
        "[2024-05-01 12:00:00] worker 7: something failed",
        TimeReader.iso,
        rf"\[?(?P<time>{ISO})\]?[:,]?(?: -)?(?: +(?P<message>.*)|$)",
    ),
    _pattern(
        "syslog-time",
        "May  1 12:00:00 something failed",
        TimeReader.syslog,
        r"(?P<time>",
        _SYSLOG_TIME,
        r") (?P<message>.*)",
    ),
)
