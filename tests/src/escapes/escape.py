"""Tries one way out of a task: WAY NOTE [stay].

The processes that get out note their ids, and sleep, or fork for ever. The first process
ends when there is somebody to find, or with `stay` does not end by itself.
"""

import ctypes, os, resource, signal, sys, time
how, note = sys.argv[1], sys.argv[2]

def noted():
    with open(note, "a") as file:
        file.write(f"{os.getpid()}\n")

def sleep():
    noted()
    time.sleep(300)
    os._exit(0)

def fork():
    return os.fork() == 0

def shed():
    """Leaves the session, the folder and the descriptors, and changes every limit that
    does not get in the way."""
    if os.getsid(0) != os.getpid():
        os.setsid()
    os.chdir("/")
    os.umask(0o77)
    # CPU, CORE, MEMLOCK, LOCKS, SIGPENDING, MSGQUEUE, RTTIME
    for number in (0, 4, 8, 10, 11, 12, 15):
        hard = resource.getrlimit(number)[1]
        value = 1 << 20 if hard < 0 else min(hard, 1 << 20)
        resource.setrlimit(number, (value, value))
    ctypes.CDLL(None).prctl(15, b"kworker/0:1", 0, 0, 0)
    os.closerange(0, 3)

def run(*words):
    os.execve(sys.executable, [sys.executable, __file__, *words, note], {})

def subreaper():
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)

if how == "sleep":
    sleep()
if how == "fork" and fork():
    sleep()
if how == "session" and fork():
    os.setsid()
    sleep()
if how == "group" and fork():
    os.setpgid(0, 0)
    sleep()
if how == "double" and fork():
    os.setsid()
    if fork():
        sleep()
    os._exit(0)
if how == "shed" and fork():
    shed()
    if fork():
        sleep()
    os._exit(0)
if how == "exec" and fork():
    shed()
    if fork():
        run("sleep")
    os._exit(0)
if how == "deaf" and fork():
    shed()
    if fork():
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        run("sleep")
    os._exit(0)
if how == "reaper" and fork():
    subreaper()
    if fork():
        shed()
        if fork():
            sleep()
        os._exit(0)
    os.wait()
    noted()
    time.sleep(300)
if how == "reaper-dies" and fork():
    subreaper()
    if fork():
        shed()
        if fork():
            run("sleep")
        os._exit(0)
    os.wait()
    time.sleep(0.2)
    os._exit(0)
if how == "vfork" and fork():
    if os.posix_spawn(sys.executable, [sys.executable, __file__, "vforked", note], {}, setsid=True):
        os._exit(0)
if how == "vforked":
    shed()
    run("shed")
if how == "user" and fork():
    shed()
    if fork():
        try:
            os.setgid(65534)
            os.setuid(65534)
        except PermissionError:
            pass
        time.sleep(300)
    with open(note, "a") as file:
        file.write(f"{os.getpid()}\n")
    os._exit(0)
if how == "chain" and fork():
    shed()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    noted()
    while True:
        if not fork():
            os._exit(0)
        os.setsid()
if how == "bomb" and fork():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    noted()
    for _ in range(6):
        if os.fork() == 0:
            os.setsid()
    while True:
        if fork():
            os._exit(0)
        os.wait()
while not (os.path.exists(note) and os.path.getsize(note)):
    time.sleep(0.01)
if len(sys.argv) > 3:
    time.sleep(300)
