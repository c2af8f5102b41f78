"""What keeps a job from running, asked before it is submitted: the machine, the job's file, and the place it goes to.

* findings: values: what was looked at, how it stands, what to do
* checks: a check is a name and a function; all run at once, none longer than its limit
* machine, packages, credentials: without a file; nothing of it needs the network
* document, hub: a job's file, and the models it names
* places: further checks by type of infrastructure, as dotted names: local, oci, aws, kubernetes
* doctor: all of it
"""
