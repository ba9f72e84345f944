"""How good are the predictions, by numbers anybody can repeat?"""
