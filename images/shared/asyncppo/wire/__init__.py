"""What travels between the programs: messages, their codec, the routes, and the HTTP client and server they ride on.

Bodies are msgpack (`application/msgpack`) of the structs here; never pickle. Every call carries the job's token.
"""
