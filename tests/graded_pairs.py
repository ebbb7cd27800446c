"""Hand-made pairs of a gold answer and an answer, and whether they are equal."""

EQUAL = r"""
(1,2) | (x,y)=(1,2)
(1,2,3) | (a,b,c) = (1,2,3)
\begin{pmatrix}1&2\\3&4\end{pmatrix} | \left(\begin{array}{cc}1&2\\3&4\end{array}\right)
\begin{pmatrix}1&2\\3&4\end{pmatrix} | \left[\begin{matrix}1&2\\3&4\end{matrix}\right]
\begin{pmatrix}1\\2\end{pmatrix} | \begin{bmatrix}1\\[2pt]2\end{bmatrix}
5 | 5\\
25^\circ\text{C} | 25
60^\circ | \angle ABC = 60^\circ
3 | \text{Total} = 3
3\text{ m/s} | 3\text{ meters per second}
60\text{ mph} | 60\text{ miles per hour}
2\text{ L} | 2\text{ liters}
5\text{ mL} | 5\text{ milliliters}
4\text{ yd} | 4\text{ yards}
\frac{\pi}{2} | pi/2
\sqrt{3} | √3
x^2+1 | x²+1
\frac{2}{3} | ⅔
2+3i | 2+3\mathrm{i}
2e | 2\mathrm{e}
2\pi | 2\mathrm{\pi}
3000000 | 3\text{ million}
42 | 42
42 | 42.
42 | $42$
42 | \(42\)
42 | \boxed{42}
42 | \text{42}
42 | **42**
42 | 42.0
42 | 042
33 | 033
-7 | −7
-7 | - 7
10080 | 10,080
10,\!080 | 10080
11,\! 111,\! 111,\! 100 | 11,111,111,100
\$23{,}000 | 23000
10\,000 | 10000
\dfrac{1}{29,\!322,\!216} | 1/29322216
.0000672 | 6.72 \times 10^{-5}
1.25 | 1.250
1.25 | \frac{5}{4}
1.25 | 1\frac14
0.15 | .15
1/2 | \frac{1}{2}
\frac43 | \dfrac{4}{3}
\frac 59 | \tfrac{5}{9}
\frac{270}7 | 270/7
\frac9{19} | \frac{9}{19}
-\frac{3}{8} | \frac{-3}{8}
-\frac{3}{8} | -3/8
\frac{6}{4} | \frac{3}{2}
137 \frac{1}{2} | 137.5
1\frac{4}{5} | 1 4/5
\frac{14}{3} | \left(\frac{14}{3}\right)
2^{10} | 1024
5! | 120
\binom{5}{2} | 10
\log_2 8 | 3
4 | 1+3=4
0.56 = 56\% | 56\%
\approx 8.24 \text{ mph} | 8.24
\$\dfrac23 \approx \$0.67 | \frac{2}{3}
x=5 | 5
5 | x = 5
x = 3 | 3
y = 2x + 3 | 2x+3
y = 2x + 3 | y = 3 + 2x
y = 2x + 3 | 2x - y + 3 = 0
5x - 7y + 11z + 4 = 0 | 5x - 7y + 11z = -4
x=1, x=2 | 1, 2
x=1, y=2 | y=2, x=1
3\sqrt{13} | \sqrt{117}
11\sqrt2 | 11\sqrt{2}
\frac{\sqrt{3}}{3} | \frac{1}{\sqrt{3}}
1+2\sqrt{3} | 2 \sqrt{3} + 1
\pi | π
\frac{\pi}{2} | \pi/2
288 \pi | 288\pi
\frac{20000}{\pi} | 20000/\pi
6 - 5i | -5i + 6
x^2+2x+1 | (x+1)^2
\frac{x}{2} | 0.5x
ab | ba
\cot x | \frac{\cos x}{\sin x}
\tan 15^\circ | 2-\sqrt{3}
6r^2-4r-24 | 2(3r^2 - 2r - 12)
90^\circ | 90
90^\circ | 90^{\circ}
90 | 90°
\frac{270}7\text{ degrees} | \frac{270}{7}^\circ
120^\circ | 120 degrees
15\mbox{ cm}^2 | 15
15\mbox{ cm}^2 | 15 \text{ square centimeters}
15 | 15 cm^2
864 \mbox{ inches}^2 | 864\text{ square inches}
5.4 \text{ cents} | 5.4
40 \text{ ft} | 40 feet
14 \text{ right triangles} | 14
90\text{ units} | 90
7\text{ hours}. | 7
\$18.90 | 18.9
\$32,\!348 | \$32348
36 | \$36
1.85\ \text{USD} | \$1.85
20\% | 20
20 | 20%
20\% | 20 percent
\text{Evelyn} | Evelyn
\text{east} | East
\text{even} | \textbf{even}
\mbox{four} | four
\text{(C)} | C
\text{(C)} | (C)
(\text{H}) | \text{H}
\text{B} | B
\text{A, B} | B,A
\text{A,B,C} | A, B and C
1,-2 | -2, 1
3, 5, 7 | \{7, 5, 3\}
-2 \text{ or } -12 | -12, -2
2, 3, \text{ and } 4 | 2,3,4
1 \pm \sqrt{19} | 1+\sqrt{19}, 1-\sqrt{19}
\{1\pm\sqrt{5},-2\} | \{-2, 1-\sqrt{5}, 1+\sqrt{5}\}
60^\circ, 120^\circ | 120, 60
(1,2) | \left( 1, 2 \right)
(1,2) | (1.0, \frac{4}{2})
(6,235^\circ) | (6, 235)
\left( 3, \frac{\pi}{2} \right) | (3, \pi/2)
(1,-16,-4,43) | 1, -16, -4, 43
(3,4] | \left(3, 4\right]
\left(\frac{3}{5},\frac{8}{3}\right] | (0.6, 8/3]
(-\infty, 0] | \left(-\infty,0\right]
(2,\infty) | (2, +\infty)
(2,\infty) | x > 2
x \in [-2,7] | [-2,7]
x \in [-2,7] | -2 \leq x \leq 7
(0,9) \cup (9,36) | (9,36)\cup(0,9)
\begin{pmatrix} -1/3 \\ 2 \end{pmatrix} | \begin{bmatrix} -\frac13 \\ 2 \end{bmatrix}
\begin{pmatrix} 1 & 0 \\ 0 & 2 \end{pmatrix} | \begin{pmatrix}1&0\\0&2\\\end{pmatrix}
52_8 | 52_{8}
4210_{5} | 4210_5
4\!:\!51 \text{ p.m.} | 4:51\text{ p.m.}
100, 200 | 100,200
"""

DIFFERENT = r"""
5 | \text{}
5 | \mathrm{}
3 | 3\mathrm{i}
5 | 2+3\mathrm{i}
2 | 2\mathrm{e}
2 | 2\mathrm{\pi}
5 | 5\text{x}
3 | 3\text{ million}
3 | 3\text{ squared}
5 | 5\text{ or 6}
2 | 2\text{ dozen}
20001 | 20000
20000 | 20001
1000000 | 1000001
42 | -42
42 |
42 | 4 2
42 | 41, 42
42 | 41 \text{ or } 42
1234 | 1, 234
1.25 | 1.26
\frac{1}{3} | 0.333
\frac{1}{3} | 0.33333333
0.333 | \frac{1}{3}
\frac{1}{2} | \frac{2}{1}
\frac{1}{2} | 1, 2
1\frac{4}{5} | \frac{14}{5}
1 4/5 | 14/5
\pi | 3.14
\pi | 3.14159265
\sqrt{2} | 1.414
\sqrt{2} | \sqrt{3}
3\sqrt{13} | \sqrt{13}
3\sqrt{13} | 13\sqrt{3}
\frac{\pi}{2} | \frac{\pi}{3}
10^{-20}\pi | 2\cdot 10^{-20}\pi
x=5 | y=5
x=5 | x=-5
x = 3 | 4
x=1, y=2 | x=2, y=1
4 | 5=4
4 | 1+4=4
5x - 7y + 11z + 4 = 0 | 0
y = 2x + 3 | y = 2x - 3
y = 2x | x = 2y
x^2+1 | y^2+1
x^2+2x+1 | x^2+2x
2k | 2
2k | 2 k^2
6 - 5i | 6 + 5i
90^\circ | 45^\circ
\tan 15^\circ | \tan 15
180\text{ miles} | 180\text{ feet}
\$5 | 5\text{ cents}
5 \text{ cm} | 5 \text{ cm}^2
5 | 5m
5 | 5 \frac{
3R^2 | 3r^2
y' | y
50\% | 0.5
0.5 | 50\%
50\% | 5\%
\text{Evelyn} | \text{Navin}
\text{east} | seat
\text{odd} | \text{even}
\text{two} | 2
\text{(C)} | D
\text{A,B} | \text{A,C}
\text{A,B} | A
1,-2 | 1,2
1,-2 | 1,-2,3
1,1,2 | 1,2,2
(1,2) | (2,1)
(1,2) | [1,2]
(1,2) | \{1,2\}
(1,2) | (1,2,3)
(1,2) | 2, 1
(3,4] | (3,4)
(3,4] | [3,4)
(3,4] | (3,5]
(2,\infty) | [2,\infty)
(2,\infty) | x \geq 2
(2,\infty) | x < 2
(0,9) \cup (9,36) | (0,36)
1 \pm \sqrt{19} | 1 + \sqrt{19}
1 \pm \sqrt{19} | 1 \pm \sqrt{17}
\begin{pmatrix} 1 \\ 2 \end{pmatrix} | \begin{pmatrix}2\\1\end{pmatrix}
\begin{pmatrix} 1 \\ 2 \end{pmatrix} | \begin{pmatrix}1&2\end{pmatrix}
\begin{vmatrix} 1 & 0 \\ 0 & 1 \end{vmatrix} | \begin{pmatrix}1&0\\0&1\end{pmatrix}
52_8 | 52
52_8 | 52_9
52_8 | 42
3:2 | 3:4
"""


def pairs(table: str) -> list[tuple[str, str]]:
    """The rows of a table as (gold, answer)."""
    rows = [line.partition(" |") for line in table.strip().splitlines()]
    return [(gold.strip(), answer.strip()) for gold, _, answer in rows]
