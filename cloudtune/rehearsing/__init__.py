"""The verb ``rehearse``: a job or pipeline against the stand-in of its cloud, on this machine.

``rehearse`` is the way from the file to the end: the cloud is staged, the spec runs there as it would, all is taken
down. ``adapting`` makes the spec smaller and fills in throw-away values, ``inputs`` finds what the user has to put
there first, ``ground`` is the folder of one rehearsal and what killed ones have left. ``clouds`` says which
infrastructures have a stand-in (``oci`` is Oracle Cloud's, ``sagemaker`` AWS's), and ``telling`` puts into words what
happens there.
"""
