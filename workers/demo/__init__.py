"""`breakerd demo`: workers on a real database, a real outage, two kills, and an exact account of it all.

`__main__` runs it, `acts` is the play, `stage` what the play stands on, `crew` and `outage` are the processes
that act in it, `ledger` what they write down, `account` what comes out, `screen` and `lines` how it looks.
"""
