"""Why a stored result differs from a published one."""
