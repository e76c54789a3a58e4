"""An oracle for the instants of cron expressions, made of cronsim and zoneinfo.

Reads cases as lines of JSON: expression, zone, and the moments, in seconds, after which and up to
which its instants are asked for. Answers each with a line: the instants. Shares nothing with the
service: cronsim names the wall times, without a zone, and zoneinfo says which moments they are.
"""

import json
import sys
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from cronsim import CronSim

MINUTE = timedelta(minutes=1)


def moments(wall, zone):
    """The moments at which the clocks of a zone show a wall time: none, one or two."""
    found = []
    for fold in (0, 1):
        moment = wall.replace(tzinfo=zone, fold=fold).astimezone(timezone.utc)
        back = moment.astimezone(zone).replace(tzinfo=None, fold=0)
        if back == wall and moment not in found:
            found.append(moment)
    return sorted(found)


def after_gap(wall, zone):
    """The first moment that the clocks of a zone show after a wall time that they leave out."""
    while not moments(wall, zone):
        wall += MINUTE
    return moments(wall, zone)[0]


def instants(expression, zone, after, until):
    """The instants after one moment and up to another."""
    around = timedelta(hours=25 if zone.key == "Pacific/Apia" else 3)
    wall_of = lambda moment: moment.astimezone(zone).replace(tzinfo=None, fold=0)
    first, last = wall_of(after) - around, wall_of(until) + around
    rhythm = expression.split()[1].startswith("*")
    found = set()
    for wall in CronSim(expression, first):
        if wall > last:
            break
        shown = moments(wall, zone)
        if rhythm:
            found.update(shown)
        else:
            found.add(shown[0] if shown else after_gap(wall, zone))
    found = sorted(moment for moment in found if after < moment <= until)
    if not any(field.startswith("*") for field in expression.split()[:2]):
        # Here cronsim has a rule for zones itself, that of Debian's cron.
        own = set()
        for moment in CronSim(expression, first.replace(tzinfo=zone)):
            moment = moment.astimezone(timezone.utc)
            if moment > until + around:
                break
            if after < moment <= until:
                own.add(moment)
        assert sorted(own) == found, (expression, zone, sorted(own), found)
    return found


for line in sys.stdin:
    case = json.loads(line)
    zone = ZoneInfo(case["zone"])
    after, until = (datetime.fromtimestamp(case[key], timezone.utc) for key in ("after", "until"))
    found = instants(case["expression"], zone, after, until)
    print(json.dumps([int(moment.timestamp()) for moment in found]))
