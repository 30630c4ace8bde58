"""Do generated images help a classifier, against showing it the real ones more often?"""
