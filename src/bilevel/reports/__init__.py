"""report.html: a run folder as one page that needs no other file and no network.

It is made from what lies in the run folder, so it can be made again at any time: `write(run)`, in a
module for each kind of run, which the commands do at their end. page.py has what the pages share.
"""
