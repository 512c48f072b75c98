"""Where the two things are in each of the photographs with a relation: boxes that we drew by hand.

Read off the photographs under a grid of ten pixels, and looked at on them again: right to within some five pixels.
Edges in pixels from the upper left corner, x0, y0, x1, y1; what is covered by something else is inside, what is cut off
by the picture ends there. Of the zebras of hc_el3 one box holds all.
"""

from fixtures.datasets.boxes import Box

BOXES: dict[str, tuple[Box, Box]] = {  # of the object, and of what it is in relation to
    "darknet_dog.jpg": ((74, 123, 172, 299), (258, 42, 375, 95)),
    "darknet_giraffe.jpg": ((109, 20, 286, 280), (159, 131, 272, 279)),
    "darknet_person.jpg": ((50, 200, 155, 257), (307, 105, 454, 259)),
    "hc_catdog.jpg": ((44, 119, 200, 224), (78, 14, 165, 148)),
    "hc_dogbird.jpg": ((5, 44, 102, 224), (94, 0, 224, 224)),
    "hc_dogcat2.jpg": ((75, 3, 268, 320), (270, 50, 463, 320)),
    "hc_el1.jpg": ((0, 88, 75, 176), (104, 17, 225, 202)),
    "hc_el2.jpg": ((10, 14, 153, 127), (97, 96, 208, 206)),
    "hc_el3.jpg": ((0, 86, 329, 262), (234, 151, 574, 283)),
    "whatsup_a_mug_left_of_table.jpg": ((65, 230, 92, 255), (118, 110, 306, 310)),
    "whatsup_a_mug_on_table.jpg": ((185, 116, 220, 146), (119, 110, 306, 310)),
    "whatsup_a_mug_right_of_table.jpg": ((326, 225, 352, 251), (118, 110, 306, 309)),
    "whatsup_a_mug_under_table.jpg": ((188, 256, 217, 287), (118, 110, 306, 309)),
    "whatsup_b_mug_behind_plate.jpg": ((165, 81, 233, 149), (147, 175, 293, 272)),
    "whatsup_b_mug_in_front_of_plate.jpg": ((147, 160, 274, 283), (169, 106, 259, 143)),
    "whatsup_b_mug_left_of_plate.jpg": ((65, 111, 157, 200), (210, 153, 338, 226)),
    "whatsup_b_mug_right_of_plate.jpg": ((252, 107, 342, 192), (78, 144, 201, 209)),
    "whatsup_t_dog_left_of_table.jpg": ((0, 176, 111, 276), (122, 99, 318, 305)),
    "whatsup_t_dog_on_table.jpg": ((213, 11, 281, 125), (122, 99, 318, 305)),
    "whatsup_t_dog_right_of_table.jpg": ((323, 157, 422, 245), (122, 99, 318, 304)),
    "whatsup_t_dog_under_table.jpg": ((196, 173, 291, 265), (122, 98, 318, 304)),
}
