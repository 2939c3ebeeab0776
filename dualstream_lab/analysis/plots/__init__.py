"""Pictures of runs. Each takes an ``ax`` (or makes one) and returns it; units are on every axis.

The colours are Okabe and Ito's, which people with any kind of colour vision can tell apart; lines that share
a colour differ in their dashes.
"""
