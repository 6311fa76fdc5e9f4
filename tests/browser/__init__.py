"""The page and the documentation in a real Chromium. (A package, so that its fixtures end with its last test.)"""
