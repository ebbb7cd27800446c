// Takes the place of the theme's script of the same name (1.5 MB), which would draw as SVG the icons
// that the theme's style sheet already draws with its own fonts.
