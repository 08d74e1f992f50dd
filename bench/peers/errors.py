# SPDX-License-Identifier: MIT
"""The one kind of error that a user sees, in the four parts that all messages of this project have."""


class PeersError(Exception):
    def __init__(self, doing, given, allowed, next_step):
        super().__init__(f"{doing}: given {given}; allowed: {allowed}; {next_step}.")
